"""A translator on its way out: the folder that is published, its card, its ONNX form, the upload."""
