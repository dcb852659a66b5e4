# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.
- dashboard: segments
  title: Segments and moves over time
  layout: newspaper
  preferred_viewer: dashboards-next
  elements:
  - name: Customers by segment
    title: Customers by segment
    model: custseg
    explore: custseg
    type: looker_area
    fields:
    - segments_over_time.period_date
    - segments_over_time.segment_name
    - segments_over_time.customers
    pivots:
    - segments_over_time.segment_name
    filters:
      segments_over_time.key: -NULL
    sorts:
    - segments_over_time.period_date
    limit: 500
    row: 0
    col: 0
    width: 12
    height: 8
  - name: Net spend by segment
    title: Net spend by segment
    model: custseg
    explore: custseg
    type: looker_line
    fields:
    - segments_over_time.period_date
    - segments_over_time.segment_name
    - segments_over_time.revenue
    pivots:
    - segments_over_time.segment_name
    filters:
      segments_over_time.key: -NULL
    sorts:
    - segments_over_time.period_date
    limit: 500
    row: 0
    col: 12
    width: 12
    height: 8
  - name: What segments are like, newest first
    title: What segments are like, newest first
    model: custseg
    explore: custseg
    type: looker_grid
    fields:
    - segments_over_time.period_date
    - segments_over_time.segment_name
    - segments_over_time.n_customers
    - segments_over_time.share_customers
    - segments_over_time.share_revenue
    - segments_over_time.median_recency_days
    - segments_over_time.median_frequency_orders
    - segments_over_time.median_monetary_net
    - segments_over_time.description
    - segments_over_time.advice
    filters:
      segments_over_time.key: -NULL
    sorts:
    - segments_over_time.period_date desc
    - segments_over_time.share_revenue desc
    limit: 500
    row: 8
    col: 0
    width: 12
    height: 8
  - name: Customers now, and how far from a border
    title: Customers now, and how far from a border
    model: custseg
    explore: custseg
    type: looker_column
    fields:
    - customer_segments.segment_name
    - customer_segments.customers
    - customer_segments.mean_margin
    filters:
      customer_segments.key: -NULL
    sorts:
    - customer_segments.customers desc
    limit: 500
    row: 8
    col: 12
    width: 12
    height: 8
  - name: Net spend to expect in 90 days, by segment
    title: Net spend to expect in 90 days, by segment
    model: custseg
    explore: custseg
    type: looker_line
    fields:
    - expected_by_segment.period_date
    - expected_by_segment.segment_name
    - expected_by_segment.spend
    pivots:
    - expected_by_segment.segment_name
    filters:
      expected_by_segment.key: -NULL
    sorts:
    - expected_by_segment.period_date
    limit: 500
    row: 16
    col: 0
    width: 12
    height: 8
  - name: What segments buy more than the shop does, newest first
    title: What segments buy more than the shop does, newest first
    model: custseg
    explore: custseg
    type: looker_grid
    fields:
    - products_by_segment.period_date
    - products_by_segment.segment_id
    - products_by_segment.rank
    - products_by_segment.product_id
    - products_by_segment.description
    - products_by_segment.n_buyers
    - products_by_segment.lift
    filters:
      products_by_segment.key: -NULL
    sorts:
    - products_by_segment.period_date desc
    - products_by_segment.segment_id
    - products_by_segment.rank
    limit: 500
    row: 16
    col: 12
    width: 12
    height: 8
  - name: Moves by cause
    title: Moves by cause
    model: custseg
    explore: custseg
    type: looker_column
    fields:
    - segment_moves.period_date
    - segment_moves.cause
    - segment_moves.customers
    pivots:
    - segment_moves.cause
    filters:
      segment_moves.key: -NULL
    sorts:
    - segment_moves.period_date
    limit: 500
    row: 24
    col: 0
    width: 12
    height: 8
  - name: Who went where
    title: Who went where
    model: custseg
    explore: custseg
    type: looker_grid
    fields:
    - segment_moves.period_date
    - segment_moves.from_segment_name
    - segment_moves.to_segment_name
    - segment_moves.cause
    - segment_moves.customers
    - segment_moves.change
    filters:
      segment_moves.key: -NULL
    sorts:
    - segment_moves.period_date desc
    - segment_moves.customers desc
    limit: 500
    row: 24
    col: 12
    width: 12
    height: 8
