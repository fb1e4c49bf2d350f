"""Where labels of pixels come from: masks in files, and what can be read off the pixels."""
