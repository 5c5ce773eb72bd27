-- Copyright (C) ngx_coord_module contributors

-- The peers of "make bench": limiters of lua-nginx-module, one written by hand,
-- one with lua-resty-redis (Debian has it as nginx.redis).  One EVALSHA a
-- request over a cosocket of a pool, the script was loaded before; the first
-- has the command put together but for its key.  For the bench only: the
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
local interval_us, burst = 1, 1000000
local port, sha, head, tail


local function init(redis_port, script)
    port = redis_port
    sha = script
    head = "*6\r\n$7\r\nEVALSHA\r\n$40\r\n" .. sha .. "\r\n$1\r\n1\r\n$"
    tail = "\r\n$" .. #tostring(interval_us) .. "\r\n" .. interval_us
           .. "\r\n$" .. #tostring(burst) .. "\r\n" .. burst .. "\r\n"
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


local function library()
    local redis = require("nginx.redis"):new()

    redis:set_timeout(1000)

    if not redis:connect("127.0.0.1", port, pool) then
        return exit(503)
    end

    local reply = redis:evalsha(sha, 1, "l:" .. var.connection, interval_us,
                                burst)
    if not reply then
        return exit(503)
    end

    redis:set_keepalive(idle_ms)

    if reply[1] ~= 1 then
        return exit(429)
    end
end


return { init = init, decide = decide, library = library }
