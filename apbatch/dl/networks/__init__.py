"""Networks: models, layers, the images they are given, export, scoring."""
