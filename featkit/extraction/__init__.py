"""Images through backbones into a store: every image once, every table whole."""
