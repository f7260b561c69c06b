-- Each request has another seed; each answer must be a 2xx that holds a PNG in base64.
-- wrk ... -s wrk.lua URL -- BODY FIRST_SEED        BODY has %d where the seed goes.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  body = args[1]
  seed = tonumber(args[2])
  wrong = 0
  headers = { ["Content-Type"] = "application/json" }
end

function request()
  seed = seed + 1
  return wrk.format("POST", nil, headers, string.format(body, seed))
end

function response(status, _, answer)
  if status < 200 or status > 299 or not string.find(answer, "iVBORw0KGgo", 1, true) then
    wrong = wrong + 1
  end
end

function done(summary, latency, _)
  local failed = 0
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("wrong")
  end
  local e = summary.errors -- its `status` is among `wrong` already
  local lost = e.connect + e.read + e.write + e.timeout
  local function ms(percent)
    return latency:percentile(percent) / 1000
  end
  io.write(string.format(
    '{"requests": %d, "errors": %d, "seconds": %.6f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f}\n',
    summary.requests, failed + lost, summary.duration / 1e6, ms(50), ms(90), ms(99), ms(99.9)))
end
