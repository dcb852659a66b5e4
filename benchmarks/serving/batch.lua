-- The body in the file CUSTSEG_BENCH_BODY, as a batch to score; with the key in CUSTSEG_BENCH_KEY where there is one.
local file = io.open(os.getenv("CUSTSEG_BENCH_BODY"), "rb")
wrk.method = "POST"
wrk.path = "/v1/score"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
local key = os.getenv("CUSTSEG_BENCH_KEY")
if key ~= "" then
  wrk.headers["Authorization"] = "Bearer " .. key
end
