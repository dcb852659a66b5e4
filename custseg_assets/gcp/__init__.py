"""Google Cloud: reached only when ``[gcp]`` is configured, and imported only then."""
