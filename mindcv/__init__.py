"""ConvNeXt and ConvNeXt V2 for MindSpore."""
