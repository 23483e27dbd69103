"""The seven stages as functions, and the runner that makes them retry-safe."""
