# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
constant: CONNECTION {
  value: "bigquery"
  export: override_optional
}

constant: DATASET {
  value: "project.customer_segments"
  export: override_optional
}
