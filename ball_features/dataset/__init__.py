"""What the images are: manifest, decoding, drawn smears, audit, splits."""
