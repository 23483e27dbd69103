"""What is promoted: the bundle's files, the scorer that reads them, MLflow's view of them."""
