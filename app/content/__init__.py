"""Content: one document, authored once, in the form that each channel wants."""
