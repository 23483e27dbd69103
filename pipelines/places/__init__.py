"""Where a URI leads, who may write there, and what a kill leaves there. No files' meaning."""
