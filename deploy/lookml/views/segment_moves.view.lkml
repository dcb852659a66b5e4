# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: segment_moves {
  label: "Moves"
  sql_table_name: `@{DATASET}.segment_moves` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.period AS STRING), '|', COALESCE(CAST(${TABLE}.from_segment_name AS STRING), ''), '|', COALESCE(CAST(${TABLE}.to_segment_name AS STRING), ''), '|', COALESCE(CAST(${TABLE}.cause AS STRING), '')) ;;
  }

  dimension: is_open {
    label: "Is open"
    description: "Whether the period is not over: the snapshot is as of the last day with data, so far."
    type: yesno
    sql: ${TABLE}.is_open ;;
  }

  dimension: from_segment_name {
    label: "From segment name"
    description: "Its name there."
    type: string
    sql: ${TABLE}.from_segment_name ;;
  }

  dimension: to_segment_name {
    label: "To segment name"
    description: "Its name here."
    type: string
    sql: ${TABLE}.to_segment_name ;;
  }

  dimension: cause {
    label: "Cause"
    description: "behaviour, border (too near to one to be sure) or model change (the model moved, not the customer)."
    type: string
    sql: ${TABLE}.cause ;;
  }

  dimension: n_customers {
    label: "Number of customers"
    description: "Customers who moved so."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_customers ;;
  }

  dimension: revenue_change {
    label: "Revenue change (currency)"
    description: "Change of their net spend since the snapshot before, in currency."
    type: number
    value_format: "#,##0.00"
    sql: ${TABLE}.revenue_change ;;
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
    description: "Moves of customers."
    type: sum
    value_format: "#,##0"
    sql: ${TABLE}.n_customers ;;
  }

  measure: change {
    label: "Change"
    description: "Change of their net spend, in currency."
    type: sum
    value_format: "#,##0"
    sql: ${TABLE}.revenue_change ;;
  }
}
