# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
test: segments_are_there_once {
  explore_source: custseg {
    column: n_rows {
      field: segments_over_time.n_rows
    }

    column: n_keys {
      field: segments_over_time.n_keys
    }

    filters: [
      segments_over_time.key: "-NULL",
    ]
  }

  assert: segments_are_there_once {
    expression: ${segments_over_time.n_rows} = ${segments_over_time.n_keys} ;;
  }
}

test: shares_of_a_snapshot_add_up {
  explore_source: custseg {
    column: period_date {
      field: segments_over_time.period_date
    }

    column: total_share {
      field: segments_over_time.total_share
    }

    filters: [
      segments_over_time.key: "-NULL",
    ]
  }

  assert: shares_of_a_snapshot_add_up {
    expression: abs(${segments_over_time.total_share} - 1) < 0.000001 ;;
  }
}

test: alerts_are_at_their_threshold {
  explore_source: custseg {
    column: n_contradictions {
      field: drift_over_time.n_contradictions
    }

    filters: [
      drift_over_time.key: "-NULL",
    ]
  }

  assert: alerts_are_at_their_threshold {
    expression: ${drift_over_time.n_contradictions} = 0 ;;
  }
}

test: decisions_are_known {
  explore_source: custseg {
    column: n_unknown {
      field: decisions.n_unknown
    }

    filters: [
      decisions.key: "-NULL",
    ]
  }

  assert: decisions_are_known {
    expression: ${decisions.n_unknown} = 0 ;;
  }
}

test: latency_rises_with_the_percentile {
  explore_source: custseg {
    column: day_date {
      field: service_latency.day_date
    }

    column: highest_p50_ms {
      field: service_latency.highest_p50_ms
    }

    column: highest_p99_ms {
      field: service_latency.highest_p99_ms
    }

    filters: [
      service_latency.key: "-NULL",
    ]
  }

  assert: latency_rises_with_the_percentile {
    expression: ${service_latency.highest_p50_ms} <= ${service_latency.highest_p99_ms} ;;
  }
}
