"""What features there are and what each means. Computing them is `pipelines.snapshot.features`."""
