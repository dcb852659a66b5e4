"""The service that answers segment lookups; it reads releases and knows nothing of the pipeline."""
