"""Facts about image file formats that Pillow does not know or does not say."""
