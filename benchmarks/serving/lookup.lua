-- Uniformly random ids out of CUSTSEG_BENCH_CUSTOMERS, with the key in CUSTSEG_BENCH_KEY.
local n = tonumber(os.getenv("CUSTSEG_BENCH_CUSTOMERS"))
math.randomseed(20111201)
wrk.headers["Authorization"] = "Bearer " .. os.getenv("CUSTSEG_BENCH_KEY")
request = function()
  return wrk.format("GET", string.format("/v1/customers/c%08d/segment", math.random(0, n - 1)))
end
