# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: segments_over_time {
  label: "Segments"
  sql_table_name: `@{DATASET}.segments_over_time` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.period AS STRING), '|', COALESCE(CAST(${TABLE}.segment_id AS STRING), '')) ;;
  }

  dimension: is_open {
    label: "Is open"
    description: "Whether the period is not over: the snapshot is as of the last day with data, so far."
    type: yesno
    sql: ${TABLE}.is_open ;;
  }

  dimension: segment_id {
    label: "Segment id"
    description: "Stable id of the business group."
    type: string
    sql: ${TABLE}.segment_id ;;
  }

  dimension: segment_name {
    label: "Segment name"
    description: "Name of the group."
    type: string
    sql: ${TABLE}.segment_name ;;
  }

  dimension: is_rule_segment {
    label: "Is rule segment"
    description: "Whether a rule, not K-means, decided."
    type: yesno
    sql: ${TABLE}.is_rule_segment ;;
  }

  dimension: naming_rule {
    label: "Naming rule"
    description: "The rule that gave the name."
    type: string
    sql: ${TABLE}.naming_rule ;;
  }

  dimension: n_customers {
    label: "Number of customers"
    description: "Customers in the segment."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_customers ;;
  }

  dimension: share_customers {
    label: "Share customers"
    description: "Share of all known customers."
    type: number
    value_format: "0.0%"
    sql: ${TABLE}.share_customers ;;
  }

  dimension: revenue_net {
    label: "Revenue net (currency)"
    description: "Net spend in the window, in currency."
    type: number
    value_format: "#,##0.00"
    sql: ${TABLE}.revenue_net ;;
  }

  dimension: share_revenue {
    label: "Share revenue"
    description: "Share of the net spend of all customers."
    type: number
    value_format: "0.0%"
    sql: ${TABLE}.share_revenue ;;
  }

  dimension: median_recency_days {
    label: "Median recency (days)"
    description: "Median of recency_days."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.median_recency_days ;;
  }

  dimension: median_frequency_orders {
    label: "Median frequency orders"
    description: "Median of frequency_orders."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.median_frequency_orders ;;
  }

  dimension: median_monetary_net {
    label: "Median monetary net (currency)"
    description: "Median of monetary_net."
    type: number
    value_format: "#,##0.00"
    sql: ${TABLE}.median_monetary_net ;;
  }

  dimension: median_avg_order_value {
    label: "Median mean order value (currency)"
    description: "Median of avg_order_value."
    type: number
    value_format: "#,##0.00"
    sql: ${TABLE}.median_avg_order_value ;;
  }

  dimension: median_n_products {
    label: "Median number of products"
    description: "Median of n_products."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.median_n_products ;;
  }

  dimension: median_tenure_days {
    label: "Median tenure (days)"
    description: "Median of tenure_days."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.median_tenure_days ;;
  }

  dimension: median_days_between_orders {
    label: "Median (days) between orders"
    description: "Median of days_between_orders."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.median_days_between_orders ;;
  }

  dimension: median_cancellation_rate {
    label: "Median cancellation rate"
    description: "Median of cancellation_rate."
    type: number
    value_format: "0.0%"
    sql: ${TABLE}.median_cancellation_rate ;;
  }

  dimension: distinguishing {
    label: "Distinguishing"
    description: "JSON list of what sets the segment apart: feature, median, median of all, ratio, text."
    type: string
    sql: ${TABLE}.distinguishing ;;
  }

  dimension: description {
    label: "Description"
    description: "One sentence: who they are."
    type: string
    sql: ${TABLE}.description ;;
  }

  dimension: advice {
    label: "Advice"
    description: "One sentence: what to do."
    type: string
    sql: ${TABLE}.advice ;;
  }

  dimension: model_version {
    label: "Model version"
    description: "Model that was in force."
    type: string
    sql: ${TABLE}.model_version ;;
  }

  dimension_group: period {
    label: "Period"
    description: "Partition key: first day of the snapshot's last period."
    type: time
    timeframes: [
      raw,
      date,
      week,
      month,
      quarter,
      year,
    ]
    convert_tz: no
    datatype: date
    sql: ${TABLE}.period ;;
  }

  dimension_group: as_of {
    label: "As of"
    description: "First instant that the snapshot does not observe."
    type: time
    timeframes: [
      raw,
      time,
      date,
      week,
      month,
      quarter,
      year,
    ]
    convert_tz: no
    datatype: datetime
    sql: ${TABLE}.as_of ;;
  }

  measure: n_rows {
    label: "Number of rows"
    description: "Rows."
    type: count
    value_format: "#,##0"
    hidden: yes
  }

  measure: n_keys {
    label: "Number of keys"
    description: "Different keys."
    type: count_distinct
    value_format: "#,##0"
    hidden: yes
    sql: ${key} ;;
  }

  measure: n_snapshots {
    label: "Number of snapshots"
    description: "Snapshots."
    type: count_distinct
    value_format: "#,##0"
    sql: ${TABLE}.period ;;
  }

  measure: sum_n_customers {
    label: "Sum number of customers"
    description: "Customers. Added over snapshots."
    type: sum
    value_format: "0.0"
    hidden: yes
    sql: ${TABLE}.n_customers ;;
  }

  measure: customers {
    label: "Customers"
    description: "Customers. The mean where several snapshots are shown."
    type: number
    value_format: "#,##0"
    sql: SAFE_DIVIDE(${sum_n_customers}, ${n_snapshots}) ;;
  }

  measure: sum_revenue_net {
    label: "Sum revenue net (currency)"
    description: "Net spend in the window, in currency. Added over snapshots."
    type: sum
    value_format: "0.0"
    hidden: yes
    sql: ${TABLE}.revenue_net ;;
  }

  measure: revenue {
    label: "Revenue (currency)"
    description: "Net spend in the window, in currency. The mean where several snapshots are shown."
    type: number
    value_format: "#,##0"
    sql: SAFE_DIVIDE(${sum_revenue_net}, ${n_snapshots}) ;;
  }

  measure: total_share {
    label: "Total share"
    description: "Shares of customers, added up."
    type: sum
    value_format: "0.0%"
    hidden: yes
    sql: ${TABLE}.share_customers ;;
  }
}
