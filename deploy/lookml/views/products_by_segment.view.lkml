# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: products_by_segment {
  label: "What segments buy"
  sql_table_name: `@{DATASET}.products_by_segment` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.period AS STRING), '|', COALESCE(CAST(${TABLE}.segment_id AS STRING), ''), '|', COALESCE(CAST(${TABLE}.rank AS STRING), '')) ;;
  }

  dimension: is_open {
    label: "Is open"
    description: "Whether the period is not over: the snapshot is as of the last day with data, so far."
    type: yesno
    sql: ${TABLE}.is_open ;;
  }

  dimension: segment_id {
    label: "Segment id"
    description: "Segment."
    type: string
    sql: ${TABLE}.segment_id ;;
  }

  dimension: rank {
    label: "Rank"
    description: "1 stands out most surely."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.rank ;;
  }

  dimension: product_id {
    label: "Product id"
    description: "Product."
    type: string
    sql: ${TABLE}.product_id ;;
  }

  dimension: description {
    label: "Description"
    description: "The product's most recent text."
    type: string
    sql: ${TABLE}.description ;;
  }

  dimension: n_buyers {
    label: "Number of buyers"
    description: "Customers of the segment who bought it in the window."
    type: number
    value_format: "#,##0"
    sql: ${TABLE}.n_buyers ;;
  }

  dimension: share_of_segment {
    label: "Share of segment"
    description: "Part that it is of what the segment buys, each product once per customer."
    type: number
    value_format: "0.0%"
    sql: ${TABLE}.share_of_segment ;;
  }

  dimension: share_of_shop {
    label: "Share of shop"
    description: "Part that it is of what the whole shop's customers buy."
    type: number
    value_format: "0.0%"
    sql: ${TABLE}.share_of_shop ;;
  }

  dimension: lift {
    label: "Lift"
    description: "The first of these parts by the second, shrunk towards 1."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.lift ;;
  }

  dimension: lift_low {
    label: "Lift low"
    description: "What the lift is above with a probability of 99.9 %."
    type: number
    value_format: "0.00"
    sql: ${TABLE}.lift_low ;;
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

  measure: products {
    label: "Products"
    description: "Products that a segment buys more than the shop does."
    type: count
    value_format: "#,##0"
  }
}
