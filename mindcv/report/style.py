"""The style sheet of the page. It follows the light or dark mode of the reader and fits narrow screens."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --text: #1c2128; --muted: #59636e; --line: #d5dae0;
  --first: #2f6fd0; --second: #c2410c; --good: #1a7f37; --bad: #c0202b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1b2129; --text: #e6eaf0; --muted: #a0abb8; --line: #37404b;
  --first: #79aef5; --second: #f59e5b; --good: #56c271; --bad: #ff7b7b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 8px 0 4px; }
h2 { font-size: 1.2rem; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 16px 0 8px; }
h3 small, figcaption small, .muted { color: var(--muted); font-weight: normal; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px;
  margin: 16px 0; }
figure { margin: 0; }
figure h3 { margin-top: 0; }
p { margin: 0 0 8px; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; }
.note { border-left: 4px solid var(--second); padding-left: 12px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; margin: 0; }
.facts dt { color: var(--muted); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.facts dd small { display: block; font-size: .8rem; line-height: 1.3; color: var(--muted); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); gap: 24px; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--muted); font-size: 12px; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--muted); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.curve-0 { stroke: var(--first); }
polyline.curve-1 { stroke: var(--second); stroke-dasharray: 6 4; }
.curve-0 circle { fill: var(--first); }
.curve-1 circle { fill: var(--second); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 4px; font-size: .9rem; }
.swatch { display: inline-block; width: 26px; vertical-align: middle; margin-right: 6px;
  border-top: 3px solid var(--first); }
.swatch-1 { border-top: 3px dashed var(--second); }
.scroll { overflow-x: auto; margin: 8px 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; unicode-bidi: isolate; }
th { color: var(--muted); font-weight: 600; }
.long td:last-child { overflow-wrap: anywhere; min-width: 6em; }
.source { display: block; color: var(--muted); }
.matrix th, .matrix td { padding: 3px 6px; border: 1px solid var(--line); text-align: center;
  vertical-align: middle; min-width: 2.2em; }
.matrix .strong { color: #ffffff; }
.matrix thead th { vertical-align: bottom; }
.matrix .name-column span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap;
  max-height: 9em; overflow: hidden; text-overflow: ellipsis; display: inline-block; }
.matrix .name-row, .matrix thead th:first-child { position: sticky; left: 0; background: var(--card); }
.matrix .name-row span { display: inline-block; max-width: 8em; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; vertical-align: middle; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 12px; }
.examples img { width: 100%; height: auto; display: block; border-radius: 6px; background: var(--line); }
.examples figcaption { font-size: .85rem; line-height: 1.35; padding-top: 4px; unicode-bidi: isolate; }
.examples figcaption small { display: block; }
.examples .wrong { border-top: 4px solid var(--bad); padding-top: 4px; }
.examples .right { border-top: 4px solid var(--good); padding-top: 4px; }
.pixelated, .wide { image-rendering: pixelated; }
.wide { width: 100%; max-width: 560px; height: auto; border: 1px solid var(--line); }
.picture { max-width: 100%; height: auto; display: block; border-radius: 6px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--first); padding: 4px 0; }
footer { color: var(--muted); font-size: .85rem; margin: 16px 0; }
@media print { section { break-inside: avoid; } }
"""
