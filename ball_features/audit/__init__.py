"""What makes a random split of a collection misleading: copies, shared fields, overlays, likely series."""
