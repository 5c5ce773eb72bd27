
# Copyright (C) ngx_coord_module contributors

# make                 build/ngx_http_coord_module.so for the installed nginx
# make NGINX_SRC=dir   the same for that source tree, and build/nginx from it;
#                      with the options that the tree was configured with, if
#                      it was
# make NGINX_BINARY=.. with the options of that binary; with NGINX_SRC its
#                      source, and no nginx is built
# make SANITIZE=1      build/sanitize/{ngx_http_coord_module.so,nginx}, with
#                      ASan and UBSan; goes with test and NGINX_SRC
# make test [TESTS=..] installs what is missing, builds, runs t/ with prove
# make matrix [CELLS=..]  the same in minimal chroots of Debian releases and for
#                      nginx source trees, see .ci/matrix
# make demo            two nodes, one Redis, until Ctrl-C; DEMO_ONCE=1: a check;
#                      TOPOLOGY=tls, sentinel or cluster: such a Redis
# make bench           ratios against stock nginx, and a limiter in Lua, in the
#                      same run: docs/bench.md
# make fuzz            the decoder of stored records, a minute (clang)
# make deb             build/deb/libnginx-mod-http-coord_*.deb, for the nginx of
#                      this Debian release
# make deb-check       builds it in a minimal chroot, installs, uses, purges it
# make lint            style, layers, generated files, compiler, cppcheck
# make install-deps    installs all Debian packages that are missing
# REDIS_SERVER=file    for demo, test and bench: valkey-server, or any other;
#                      not set: redis-server, or valkey-server without that

NGINX_SRC ?=
NGINX_BINARY ?=
REDIS_SERVER ?=
SANITIZE ?=
CELLS ?= bookworm trixie forky
PROVE_JOBS ?= 8
FUZZ_TIME ?= 60
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

ifeq ($(NGINX_SRC),)
tree_name := nginx
else
tree_name := $(notdir $(abspath $(NGINX_SRC)))
endif

ifeq ($(SANITIZE),1)
out := build/sanitize
tree := build/tree/$(tree_name)-sanitize
else
out := build
tree := build/tree/$(tree_name)
endif

# which nginx runs: one that is built here, the given one, the installed one

ifeq ($(SANITIZE),1)
build_nginx := yes
else
build_nginx := $(if $(NGINX_SRC),$(if $(NGINX_BINARY),,yes))
endif

ifeq ($(build_nginx),yes)
binary := $(CURDIR)/$(out)/nginx
else
binary := $(or $(NGINX_BINARY),$(shell PATH=$$PATH:/usr/sbin:/usr/local/sbin \
                                command -v nginx))
endif

module := $(out)/ngx_http_coord_module.so
sources := $(sort $(wildcard ngx_coord_module/*/*.c ngx_coord_module/*/*.h))
scripts := $(sort $(wildcard lua-free-scripts/*.redis))
table := ngx_coord_module/base/ngx_coord_script_table.h

unit_sources := $(shell grep -l '^main\>' t/unit/*.c 2>/dev/null)
unit_helpers := $(filter-out $(unit_sources),$(wildcard t/unit/*.[ch]))
unit_objects := $(patsubst %.c,$(out)/unit/%.o,$(filter %.c,$(unit_helpers) \
                  $(filter $(addprefix ngx_coord_module/,base/% redis/% \
                  store/%),$(sources))))
unit_tests := $(patsubst t/unit/%.c,$(out)/unit/%,$(unit_sources))

# tests wait more than they compute: several at once, the longest first; those
# that only compute give way to the others

slow_tests := $(wildcard $(foreach n,deb idempotency_clients_more fleet \
                limit_req_align redis_acl idempotency_freed status_browser \
                cache limit_req_model events_history storm cache_unsafe \
                redis_kills redis_refuses redis_cluster_moves redis_bare \
                harness body_memory unit bench idempotency_failure \
                session_cut redis_sentinel redis_hostile giveback \
                limit_conn_wait limit_conn_nodes lookup_heard session_users \
                idempotency_clients docs idempotency_request cache_parts \
                cache_purge limit_req_prefetch session cache_rules \
                idempotency_wait session_cluster fail2ban events \
                session_ended session_seats redis_down redis_server \
                idempotency_outcome lifecycle idempotency_upstreams \
                idempotency_large idempotency_abort examples lint \
                on_failure_local session_hold redis_cluster_hostile \
                lookup_tracking session_login idempotency redis_cluster \
                health redis_log limit_conn cache_stock parity \
                idempotency_body limit_conn_killed migrate idempotency_conf \
                events_hostile events_browser,t/$(n).t))
TESTS ?= $(slow_tests) $(filter-out $(slow_tests),$(sort $(wildcard t/*.t)))

lua_redis := $(out)/bench/usr/share/lua/5.1/nginx/redis.lua

submake = $(MAKE) --no-print-directory
parallel = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

export NGINX_SRC NGINX_BINARY REDIS_SERVER SANITIZE

test_env = TEST_NGINX_BINARY=$(binary) TEST_MODULE=$(CURDIR)/$(module) \
           TEST_UNIT=$(CURDIR)/$(out)/unit TEST_SANITIZE=$(SANITIZE)

.PHONY: fuzz all module unit test check matrix demo bench deb deb-check lint \
        clean \
        install-deps test-deps FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: module

# the set of sources is part of the configuration: it is kept in a file that
# changes only when the set does

$(tree).list: FORCE
	@mkdir -p $(@D)
	@echo '$(sources) $(NGINX_SRC) $(NGINX_BINARY)' | cmp -s - $@ \
	    || echo '$(sources) $(NGINX_SRC) $(NGINX_BINARY)' > $@

$(table): $(scripts) lua-free-scripts/generate.sh
	sh lua-free-scripts/generate.sh > $@.tmp && mv $@.tmp $@
	@touch $@

$(tree)/objs/Makefile: config .ci/nginx-tree $(tree).list $(table) \
                       $(filter /usr/%,$(binary))
	@echo "configuring $(tree)"
	@.ci/nginx-tree $(tree) .

module: $(tree)/objs/Makefile
	@mkdir -p $(out)
ifeq ($(build_nginx),yes)
	@$(submake) $(parallel) -s -C $(tree) -f objs/Makefile binary
	@cmp -s $(tree)/objs/nginx $(out)/nginx \
	    || cp -f $(tree)/objs/nginx $(out)/nginx
endif
	@$(submake) $(parallel) -s -C $(tree) -f objs/Makefile modules
	@cmp -s $(tree)/objs/ngx_http_coord_module.so $(module) \
	    || { cp -f $(tree)/objs/ngx_http_coord_module.so $(module).new \
	         && mv -f $(module).new $(module); }
	@echo "built $(module)"

# Unit tests are linked with an archive of all that is below HTTP: what a test
# defines itself takes the place of a file there.

unit_cflags = -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -g -O1 \
              -fno-omit-frame-pointer -fsanitize=address,undefined \
              -fno-sanitize=nonnull-attribute -fno-sanitize-recover=undefined \
              -Wall -Wextra -Wno-unused-parameter -Werror
unit_includes = $(addprefix -I ,$(wildcard ngx_coord_module/*/)) -I t/unit \
                $(foreach d,src/core src/event src/event/modules \
                src/event/quic src/os/unix src/http src/http/modules \
                src/http/v2 src/http/v3 objs,-isystem $(tree)/$(d))

unit: $(unit_tests)

$(out)/unit/%.o: %.c $(filter %.h,$(sources) $(unit_helpers)) \
                 | $(tree)/objs/Makefile
	@mkdir -p $(@D)
	@$(CC) $(unit_cflags) $(unit_includes) -c -o $@ $<

$(out)/unit/libcoord.a: $(unit_objects)
	@rm -f $@
	@$(AR) rcs $@ $^

$(out)/unit/%: $(out)/unit/t/unit/%.o $(out)/unit/libcoord.a
	@$(CC) $(unit_cflags) -o $@ $^ -lhiredis -lcrypto -lcmocka
	@echo "built $@"

fuzz: $(tree)/objs/Makefile
	@mkdir -p $(out)/fuzz/corpus
	clang -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined \
	    $(unit_includes) \
	    -o $(out)/fuzz/record_fuzz t/fuzz/record_fuzz.c \
	    t/unit/ngx_stub.c ngx_coord_module/base/ngx_coord_record.c \
	    ngx_coord_module/base/ngx_coord_key.c -lcrypto
	cd $(out)/fuzz && ./record_fuzz -max_total_time=$(FUZZ_TIME) \
	    -max_len=1000 corpus

install-deps:
	@.ci/install-deps test
	@.ci/install-deps bench
	@.ci/install-deps lint

test:
	@.ci/install-deps test
	@$(submake) check

check: module unit
	@$(test_env) prove -j$(PROVE_JOBS) --timer -I t/lib $(TESTS)

matrix:
	@.ci/matrix $(CELLS)

demo:
	@.ci/install-deps demo
	@$(submake) module
	@$(test_env) DEMO_ONCE=$(DEMO_ONCE) TOPOLOGY=$(TOPOLOGY) \
	    perl -I t/lib examples/demo.pl

bench:
	@.ci/install-deps bench
	@$(submake) module $(out)/bench/delay $(lua_redis)
	@$(test_env) BENCH_DELAY=$(CURDIR)/$(out)/bench/delay \
	    BENCH_LUA=$(CURDIR)/$(out)/bench/usr/share/lua/5.1 \
	    perl -I t/lib bench/run.pl

# a library for a row of the bench, if it can be had; to install it would bring
# all modules of nginx that Debian has

$(lua_redis):
	@mkdir -p $(out)/bench
	@cd $(out)/bench && apt-get download -qq lua-nginx-redis >/dev/null 2>&1 \
	    && dpkg-deb -x lua-nginx-redis_*.deb . || true

$(out)/bench/delay: bench/delay.c
	@mkdir -p $(@D)
	@$(CC) -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -o $@ $<

deb:
	@.ci/install-deps deb
	@packaging/deb

deb-check:
	@packaging/check $(CELLS)

lint:
	@.ci/install-deps lint
	@$(submake) $(tree)/objs/Makefile
	@perl .ci/lint $(tree)

clean:
	rm -rf build
