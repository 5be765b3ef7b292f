"""Forms of the layers for CPU: the same functions, written with operators that are fast there."""
