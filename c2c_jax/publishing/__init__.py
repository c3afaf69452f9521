"""Publishing a translator: export to a folder, model card, ONNX, upload to the hub."""
