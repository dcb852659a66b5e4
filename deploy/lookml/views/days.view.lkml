# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
view: days {
  label: "Days"
  sql_table_name: `@{DATASET}.days` ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    type: string
    sql: CONCAT(CAST(${TABLE}.day AS STRING)) ;;
  }

  dimension_group: day {
    label: "Day"
    description: "First day of a snapshot's last period, or UTC day of the service's requests."
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
    sql: ${TABLE}.day ;;
  }
}
