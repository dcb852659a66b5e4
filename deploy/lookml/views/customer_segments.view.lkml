# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: customer_segments {
  label: "Customers"
  sql_table_name: `@{DATASET}.customer_segments` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.period AS STRING), '|', COALESCE(CAST(${TABLE}.customer_id AS STRING), '')) ;;
  }

  dimension: customer_id {
    label: "Customer id"
    description: "Customer, exactly as the shop writes it."
    type: string
    sql: ${TABLE}.customer_id ;;
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

  dimension: margin {
    label: "Margin"
    description: "(second nearest − nearest) / second nearest distance: 0 at the border, 1 at a centroid; where is_held, −(own − nearest) / own distance."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.margin ;;
  }

  dimension: p_order_30d {
    label: "P order 30d"
    description: "Probability of an order within 30 days after as_of, 0 to 1."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.p_order_30d ;;
  }

  dimension: p_order_90d {
    label: "P order 90d"
    description: "Probability of an order within 90 days after as_of, 0 to 1."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.p_order_90d ;;
  }

  dimension: expected_orders_90d {
    label: "Expected orders 90d"
    description: "Expected orders within 90 days after as_of, a count."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.expected_orders_90d ;;
  }

  dimension: expected_spend_90d {
    label: "Expected spend 90d (currency)"
    description: "Expected net spend within 90 days after as_of, in currency."
    type: number
    value_format: "#,##0.00"
    sql: ${TABLE}.expected_spend_90d ;;
  }

  dimension: model_version {
    label: "Model version"
    description: "Model that was in force."
    type: string
    sql: ${TABLE}.model_version ;;
  }

  dimension: is_open {
    label: "Is open"
    description: "Whether the period is not over: the snapshot is as of the last day with data, so far."
    type: yesno
    sql: ${TABLE}.is_open ;;
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

  measure: customers {
    label: "Customers"
    description: "Customers at the newest snapshot."
    type: count
    value_format: "#,##0"
  }

  measure: mean_margin {
    label: "Mean margin"
    description: "Mean margin: 0 at the border."
    type: average
    value_format: "0.00"
    sql: ${TABLE}.margin ;;
  }

  measure: expected_spend {
    label: "Expected spend (currency)"
    description: "Net spend to expect within 90 days."
    type: sum
    value_format: "#,##0"
    sql: ${TABLE}.expected_spend_90d ;;
  }
}
