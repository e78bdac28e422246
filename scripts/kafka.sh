#!/usr/bin/env bash
# A real Apache Kafka (KRaft, no container) on loopback, for tests and for trying things out.
#
#   kafka.sh start [--brokers 1|3] [--optimise] DIR
#                                        starts a cluster whose data, logs and pids live in DIR, or brings back the one
#                                        that is there; the last line of the output is bootstrap=127.0.0.1:PORT[,...];
#                                        --optimise: half the cost, but only after a minute of load (see JVM below)
#   kafka.sh stop DIR [BROKER]           clean shutdown
#   kafka.sh crash DIR [BROKER]          kill -9; `start` brings it back on its old port
#   kafka.sh pause DIR [BROKER]          SIGSTOP: it holds its connections and answers nothing
#   kafka.sh resume DIR [BROKER]         SIGCONT
#   kafka.sh status DIR                  exit 0 only if every broker answers
#   kafka.sh wipe DIR                    stop and delete the data
#   kafka.sh run CLASS [ARGS...]         any Kafka tool, e.g. org.apache.kafka.tools.TopicCommand --help
#   kafka.sh fetch                       download only
#
# The jars live in .cache/ beside this script's folder (NOVA_CACHE changes that), Maven fetches them once.
# KAFKA_HEAP   heap of a broker, default 320m
# KAFKA_HOSTS  address of each broker, "10.77.1.31 10.77.1.32 …", in network namespaces of these names: KAFKA_NETNS="k1 k2 …";
#              default: 127.0.0.1, and none. Ports are then 9092 and 9093
# KAFKA_EXTRA  more broker settings, "key=value\nkey=value", written at start
# Needs bash, flock, setsid, Java 17 or newer, and Maven for the first fetch.
set -euo pipefail

KAFKA_VERSION=4.3.1
LOG4J_VERSION=2.25.5
PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
# The quick compiler only: on a small machine a broker then starts faster and, for its first minute, answers faster
# than with the optimising one, whose threads take the cores. Brokers in production have both.
JVM=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Djava.awt.headless=true)

die() { echo "kafka: $*" >&2; exit 1; }
usage() { sed -n '2,22p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit "${1:-2}"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${NOVA_CACHE:-$root/.cache}
dist=$cache/kafka-$KAFKA_VERSION

find_java() {
  local candidate major
  for candidate in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
    [ -n "$candidate" ] && [ -x "$candidate" ] || continue
    major=$("$candidate" -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge 17 ] && { JAVA=$candidate; return; }
  done
  die "no Java 17 or newer found (Debian: openjdk-17-jre-headless; or set JAVA_HOME)"
}

fetch() {
  [ -e "$dist/.complete" ] && return
  command -v mvn >/dev/null || die "Maven is needed for the first download (Debian: maven)"
  mkdir -p "$cache"
  exec 8>"$cache/.kafka-lock"
  flock -w 600 8 || die "another fetch into $cache does not end"
  [ -e "$dist/.complete" ] && return
  local work; work=$(mktemp -d "$cache/kafka-fetch.XXXXXX")
  cat >"$work/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies>
 <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
 <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version>
  <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>
 <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$LOG4J_VERSION</version></dependency>
</dependencies></project>
POM
  echo "kafka: fetching Apache Kafka $KAFKA_VERSION with Maven" >&2
  if ! (cd "$work" && mvn -B -q "$PLUGIN:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$work/libs") \
      >"$work/mvn.log" 2>&1; then
    grep -m 3 -F '[ERROR]' "$work/mvn.log" | cut -c1-400 >&2 || true
    rm -rf "$work"
    die "Maven could not fetch Kafka $KAFKA_VERSION"
  fi
  [ -e "$work/libs/kafka_2.13-$KAFKA_VERSION.jar" ] || { rm -rf "$work"; die "Maven brought no kafka_2.13 jar"; }
  rm -rf "$dist"
  mkdir -p "$dist"
  mv "$work/libs" "$dist/libs"
  : >"$dist/.complete"
  rm -rf "$work"
  exec 8>&-
}

pid_of() { # broker -> its pid, if that process is really our broker and not a later one with the same number
  local pid; pid=$(cat "$dir/b$1/pid" 2>/dev/null) || return 1
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$dir/b$1/server.properties" && echo "$pid"
}
list() { local b; for b in "$dir"/b[0-9]*; do [ -d "$b" ] && echo "${b##*/b}"; done; return 0; }
port_of() { sed -n 's/^# client-port=//p' "$dir/b$1/server.properties"; }
nth() { local all=($2); echo "${all[$1 - 1]:-}"; }
host_of() { local host; host=$(nth "$1" "${KAFKA_HOSTS:-}"); echo "${host:-127.0.0.1}"; }
# Runs a command where the broker lives.
at() { local ns; ns=$(nth "$1" "${KAFKA_NETNS:-}"); shift; if [ -n "$ns" ]; then exec nsenter --net="/run/netns/$ns" "$@"; else exec "$@"; fi; }
bootstrap() { local all= n; for n in $(list); do all+="${all:+,}$(host_of "$n"):$(port_of "$n")"; done; echo "$all"; }
busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

answers() { # asks the broker at this address and port for its API versions
  local n
  n=$( (exec 3<>"/dev/tcp/$1/$2" && printf '\0\0\0\012\0\022\0\0\0\0\0\001\377\377' >&3 \
        && timeout 2 head -c 4 <&3 | wc -c) 2>/dev/null ) || return 1
  [ "$n" = 4 ]
}
started() { grep -q 'Kafka Server started' "$dir/b$1/out.log" 2>/dev/null && answers "$(host_of "$1")" "$(port_of "$1")"; }

free_ports() { # count -> that many ports nobody listens on, below the range the kernel gives to clients
  local found=() port
  if [ -n "${KAFKA_HOSTS:-}" ]; then
    for _ in $(seq $(($1 / 2))); do found+=(9092 9093); done
    echo "${found[@]}"
    return
  fi
  while [ ${#found[@]} -lt "$1" ]; do
    port=$((15000 + (RANDOM * 32768 + RANDOM) % 17000))
    busy "$port" || found+=("$port")
  done
  echo "${found[@]}"
}

configure() { # broker, count, then client and controller port of each broker
  local n=$1 count=$2; shift 2
  local ports=("$@") voters= i replicas=1 isr=1
  for i in $(seq "$count"); do voters+="${voters:+,}$i@$(host_of "$i"):${ports[2 * i - 1]}"; done
  [ "$count" = 3 ] && replicas=3 isr=2
  mkdir -p "$dir/b$n"
  cat >"$dir/b$n/base.properties" <<CONF
# client-port=${ports[2 * n - 2]}
process.roles=broker,controller
node.id=$n
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://$(host_of "$n"):${ports[2 * n - 2]},CONTROLLER://$(host_of "$n"):${ports[2 * n - 1]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/b$n/data
default.replication.factor=$replicas
min.insync.replicas=$isr
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$isr
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$isr
share.coordinator.state.topic.num.partitions=4
# a topic comes from ensure_topics, with its settings, or not at all
auto.create.topics.enable=false
# small heaps: the cleaner alone takes 128 MiB by default
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.threads=1
num.network.threads=2
num.io.threads=4
socket.request.max.bytes=33554432
# a killed broker is noticed in 3 s instead of 9 s
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
CONF
}

log_config() {
  cat >"$dir/log4j2.yaml" <<'YAML'
Configuration:
  status: error
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: { pattern: "[%d] %p %m (%c)%n" }
  Loggers:
    Root: { level: INFO, AppenderRef: { ref: STDOUT } }
YAML
}

start() {
  find_java
  fetch
  local have fresh=() n pid ports deadline
  have=$(list | wc -l)
  if [ "$have" -gt 0 ]; then
    [ -z "$brokers" ] || [ "$brokers" = "$have" ] || die "$dir holds a cluster of $have; wipe it or take another folder"
    brokers=$have
  else
    brokers=${brokers:-1}
    case $brokers in 1 | 3) ;; *) die "--brokers must be 1 or 3" ;; esac
    read -r -a ports <<<"$(free_ports $((brokers * 2)))"
    for n in $(seq "$brokers"); do configure "$n" "$brokers" "${ports[@]}"; done
    # An id may not begin with '-', it would read as an option.
    head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22 | sed 's/^-/A/' >"$dir/cluster-id"
  fi
  log_config
  for n in $(list); do
    { cat "$dir/b$n/base.properties"; printf '%b\n' "${KAFKA_EXTRA:-}"; } >"$dir/b$n/server.properties"
    [ -e "$dir/b$n/data/meta.properties" ] && continue
    "$JAVA" -Xmx128m "${JVM[@]}" -cp "$dist/libs/*" kafka.tools.StorageTool format --ignore-formatted \
      -t "$(cat "$dir/cluster-id")" -c "$dir/b$n/server.properties" >"$dir/b$n/format.log" 2>&1 9>&- &
    fresh+=($!)
  done
  for pid in "${fresh[@]}"; do wait "$pid" || { cat "$dir"/b*/format.log >&2; die "formatting the storage failed"; }; done
  for n in $(list); do
    if pid=$(pid_of "$n"); then kill -CONT "$pid"; continue; fi
    : >"$dir/b$n/out.log"
    (cd "$dir/b$n"; at "$n" setsid nohup "$JAVA" -Xms64m -Xmx"${KAFKA_HEAP:-320m}" "${broker_jvm[@]}" \
      -Dlog4j2.configurationFile="$dir/log4j2.yaml" -cp "$dist/libs/*" kafka.Kafka "$dir/b$n/server.properties" \
      >>"$dir/b$n/out.log" 2>&1 9>&- </dev/null) &
    echo $! >"$dir/b$n/pid"
  done
  deadline=$((SECONDS + ${KAFKA_START_TIMEOUT:-120}))
  for n in $(list); do
    until started "$n"; do
      kill -0 "$(cat "$dir/b$n/pid")" 2>/dev/null || { tail -n 25 "$dir/b$n/out.log" >&2; die "broker $n died"; }
      [ $SECONDS -lt $deadline ] || { tail -n 10 "$dir/b$n/out.log" >&2; die "broker $n did not answer in time"; }
      sleep 0.1
    done
  done
  echo "bootstrap=$(bootstrap)"
}

signal() { # name: sends it, and waits for the end where it means one
  local n pid pids=() deadline=$((SECONDS + 30))
  for n in $(list); do
    [ -z "$only" ] || [ "$only" = "$n" ] || continue
    pid=$(pid_of "$n") || continue
    kill -"$1" "$pid" 2>/dev/null || true
    # A paused broker would not see the end coming.
    [ "$1" = TERM ] && kill -CONT "$pid" 2>/dev/null || true
    pids+=("$pid")
  done
  case $1 in
    TERM | KILL)
      for pid in "${pids[@]}"; do
        while kill -0 "$pid" 2>/dev/null; do
          [ $SECONDS -lt $deadline ] || kill -KILL "$pid" 2>/dev/null || true
          sleep 0.1
        done
      done ;;
    STOP)
      # The signal is sent, but each thread stops when it gets to run; one of them may still answer.
      for pid in "${pids[@]}"; do
        while { grep -hs '^State:' "/proc/$pid"/task/*/status || true; } | grep -v 'T (stopped)' >/dev/null; do
          [ $SECONDS -lt $deadline ] || die "broker does not stop running"
          sleep 0.02
        done
      done ;;
  esac
  echo "$cmd: ${#pids[@]} broker(s)"
}

status() {
  local n pid code=0
  [ -n "$(list)" ] || { echo "no cluster in $dir"; exit 3; }
  for n in $(list); do
    if ! pid=$(pid_of "$n"); then echo "broker $n: down"; code=1; continue; fi
    if started "$n"; then echo "broker $n: ready pid=$pid"; else echo "broker $n: no answer pid=$pid"; code=1; fi
  done
  [ $code = 0 ] && echo "bootstrap=$(bootstrap)"
  exit $code
}

cmd=${1:-}
[ -n "$cmd" ] || usage
shift
case $cmd in
  fetch) fetch; echo "$dist/libs"; exit ;;
  run)
    find_java; fetch
    [ $# -gt 0 ] || die "run needs the name of a class"
    exec "$JAVA" -Xmx256m "${JVM[@]}" -cp "$dist/libs/*" "$@" ;;
  start | stop | crash | pause | resume | status | wipe) ;;
  -h | --help | help) usage 0 ;;
  *) usage ;;
esac
brokers= dir= only= broker_jvm=("${JVM[@]}")
while [ $# -gt 0 ]; do
  case $1 in
    --brokers) brokers=${2:?--brokers needs 1 or 3}; shift 2 ;;
    --brokers=* | brokers=*) brokers=${1#*=}; shift ;;
    --optimise) broker_jvm=(-XX:+UseSerialGC -Xshare:auto -Djava.awt.headless=true); shift ;;
    -*) usage ;;
    *) if [ -z "$dir" ]; then dir=$1; else only=$1; fi; shift ;;
  esac
done
[ -n "$dir" ] || die "$cmd needs a folder"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# One command at a time per folder.
exec 9>"$dir/.lock"
flock -w 180 9 || die "another kafka.sh works on $dir"
case $cmd in
  start) start ;;
  stop) signal TERM ;;
  crash) signal KILL ;;
  pause) signal STOP ;;
  resume) signal CONT ;;
  status) status ;;
  wipe) signal TERM; rm -rf "$dir"/b[0-9]* "$dir/cluster-id" "$dir/log4j2.yaml" ;;
esac
