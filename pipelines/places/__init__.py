"""Where a URI leads, and who may write there: leases and conditional writes. No files' meaning."""
