-- One feature row a request.
wrk.method = "POST"
wrk.path = "/v1/score"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("CUSTSEG_BENCH_KEY")
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"customers":[{"recency_days":62,"frequency_orders":3,"monetary_net":512.3}]}'
