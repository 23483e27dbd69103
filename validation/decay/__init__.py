"""What models lose as they age, by how they rank later days, and how often it pays to retrain."""
