-- The requests in CUSTSEG_BENCH_REQUESTS, such as "GET:/v1/model POST:/v1/score", in turn.
local requests, at = {}, 0
for method, path in os.getenv("CUSTSEG_BENCH_REQUESTS"):gmatch("(%u+):(%S+)") do
  requests[#requests + 1] = wrk.format(method, path)
end
request = function()
  at = at % #requests + 1
  return requests[at]
end
