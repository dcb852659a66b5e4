# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: decisions {
  label: "Decisions"
  sql_table_name: `@{DATASET}.decisions` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.period AS STRING), '|', COALESCE(CAST(${TABLE}.question AS STRING), '')) ;;
  }

  dimension: question {
    label: "Question"
    description: "retrain: whether to train a challenger; promotion: whether to put it in force."
    type: string
    sql: ${TABLE}.question ;;
  }

  dimension: decision {
    label: "Decision"
    description: "RETRAIN or WAIT; PROMOTE, HOLD, REJECT or ROLLBACK."
    type: string
    sql: ${TABLE}.decision ;;
  }

  dimension: reasons {
    label: "Reasons"
    description: "JSON list of reasons in words."
    type: string
    sql: ${TABLE}.reasons ;;
  }

  dimension: model_version {
    label: "Model version"
    description: "Model in force, or the challenger; null where none was trained."
    type: string
    sql: ${TABLE}.model_version ;;
  }

  dimension: decided_by {
    label: "Decided by"
    description: "rules, gate, or the name of the person who decided."
    type: string
    sql: ${TABLE}.decided_by ;;
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

  measure: decisions {
    label: "Decisions"
    description: "Decisions."
    type: count
    value_format: "#,##0"
  }

  measure: n_unknown {
    label: "Number of unknown"
    description: "Decisions in other words."
    type: sum
    value_format: "#,##0"
    hidden: yes
    sql: CASE WHEN ${TABLE}.decision IN ('RETRAIN', 'WAIT', 'PROMOTE', 'HOLD', 'REJECT', 'ROLLBACK') THEN 0 ELSE 1 END ;;
  }
}
