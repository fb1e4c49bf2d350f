"""Random views of whole batches of images, on the device that trains."""
