# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: expected_by_segment {
  label: "What to expect"
  sql_table_name: `@{DATASET}.expected_by_segment` ;;

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

  dimension: n_customers {
    label: "Number of customers"
    description: "Customers of whom something is expected."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_customers ;;
  }

  dimension: expected_orders_90d {
    label: "Expected orders 90d"
    description: "Orders to expect of them within 90 days."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.expected_orders_90d ;;
  }

  dimension: expected_spend_90d {
    label: "Expected spend 90d (currency)"
    description: "Net spend to expect of them within 90 days, in currency."
    type: number
    value_format: "#,##0.00"
    sql: ${TABLE}.expected_spend_90d ;;
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

  measure: sum_expected_orders_90d {
    label: "Sum expected orders 90d"
    description: "Orders to expect within 90 days. Added over snapshots."
    type: sum
    value_format: "0.0"
    hidden: yes
    sql: ${TABLE}.expected_orders_90d ;;
  }

  measure: orders {
    label: "Orders"
    description: "Orders to expect within 90 days. The mean where several snapshots are shown."
    type: number
    value_format: "#,##0"
    sql: SAFE_DIVIDE(${sum_expected_orders_90d}, ${n_snapshots}) ;;
  }

  measure: sum_expected_spend_90d {
    label: "Sum expected spend 90d (currency)"
    description: "Net spend to expect within 90 days, in currency. Added over snapshots."
    type: sum
    value_format: "0.0"
    hidden: yes
    sql: ${TABLE}.expected_spend_90d ;;
  }

  measure: spend {
    label: "Spend (currency)"
    description: "Net spend to expect within 90 days, in currency. The mean where several snapshots are shown."
    type: number
    value_format: "#,##0"
    sql: SAFE_DIVIDE(${sum_expected_spend_90d}, ${n_snapshots}) ;;
  }
}
