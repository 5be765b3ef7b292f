"""Classes of colours that any network can tell apart, and how tests of the scripts prepare images."""

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
PREPROCESSING = {"image_resize": 32, "crop_pct": 1.0, "interpolation": "bilinear", "in_channels": 3}
PREPROCESSING |= {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
