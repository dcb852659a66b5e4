-- As lookup.lua, and every answer is compared with the line of its customer in the file CUSTSEG_BENCH_ANSWERS.
local n, threads = tonumber(os.getenv("CUSTSEG_BENCH_CUSTOMERS")), {}
local expected = {}
for line in io.lines(os.getenv("CUSTSEG_BENCH_ANSWERS")) do
  local customer, rest = line:match("^(%S+) (.*)$")
  expected[customer] = rest
end
wrong = 0
math.randomseed(20111201)
wrk.headers["Authorization"] = "Bearer " .. os.getenv("CUSTSEG_BENCH_KEY")
request = function()
  return wrk.format("GET", string.format("/v1/customers/c%08d/segment", math.random(0, n - 1)))
end
response = function(status, _, body)
  local customer = body:match('"customer_id":"([^"]*)"')
  local segment = body:match('"segment_id":"([^"]*)"')
  local product = body:match('"product_id":"([^"]*)"')
  local version = body:match('"model_version":"([^"]*)"')
  if status ~= 200 or not customer or expected[customer] ~= string.format("%s %s %s", version, segment, product) then
    wrong = wrong + 1
  end
end
setup = function(thread)
  threads[#threads + 1] = thread
end
done = function()
  for _, thread in ipairs(threads) do
    print("Wrong answers: " .. thread:get("wrong"))
  end
end
