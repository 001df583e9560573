"""HTTP interfaces of the trail. The relay takes events of browsers; FastAPI is imported in here alone."""
