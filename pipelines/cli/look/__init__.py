"""`homefeed status`, `doctor` and `open`: looks at a deployment, and changes nothing."""
