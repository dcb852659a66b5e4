"""The rules of customer segmentation, pure; see README.md in this folder."""
