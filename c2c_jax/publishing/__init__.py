"""Publishing a translator: the exported folder, its model card, its ONNX form, the upload to the hub."""
