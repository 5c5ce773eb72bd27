-- Copyright (C) ngx_coord_module contributors

-- The peer of "make bench": a limiter of lua-nginx-module as one writes it by
-- hand.  One EVALSHA a request over a cosocket of a pool, the script was loaded
-- before, the command is put together but for its key.  For the bench only: the
-- module has no Lua, neither in nginx nor in Redis.
--
-- Whatever goes wrong ends with 503, which the bench does not take for a
-- decision.

local tcp = ngx.socket.tcp
local exit = ngx.exit
local var = ngx.var
local byte = string.byte
local sub = string.sub

local idle_ms, pool = 60000, { pool_size = 128 }
local port, head, tail


local function init(redis_port, sha)
    port = redis_port
    head = "*6\r\n$7\r\nEVALSHA\r\n$40\r\n" .. sha .. "\r\n$1\r\n1\r\n$"
    tail = "\r\n$1\r\n1\r\n$7\r\n1000000\r\n"     -- interval in us, burst
end


-- { allowed, wait, tat - now }

local function read(sock)
    if sock:receive() ~= "*3" then
        return nil
    end

    local allowed = sock:receive()
    local wait = sock:receive()
    local left = sock:receive()

    if not left or byte(left) ~= 58 then          -- ":"
        return nil
    end

    return sub(allowed, 2), sub(wait, 2)
end


local function decide()
    local sock = tcp()
    local key = "l:" .. var.connection

    sock:settimeout(1000)

    if not sock:connect("127.0.0.1", port, pool) then
        return exit(503)
    end

    if not sock:send(head .. #key .. "\r\n" .. key .. tail) then
        return exit(503)
    end

    local allowed = read(sock)

    if not allowed then
        return exit(503)
    end

    sock:setkeepalive(idle_ms)

    if allowed ~= "1" then
        return exit(429)
    end
end


return { init = init, decide = decide }
