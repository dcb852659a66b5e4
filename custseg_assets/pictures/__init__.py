"""Pictures of the pipeline's results, as PNG bytes: frames and values in, bytes out; no files, clock or Dagster."""
