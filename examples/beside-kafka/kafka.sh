# Sourced by `run`. Starts one node of Apache Kafka with a temporary folder and stops it at the end.
#   $kafka   its address
folder=$(mktemp -d)
# Kafka does not print which ports it uses, so the script chooses two free ones.
read -r port controller < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))')
cat >"$folder/server.properties" <<END
process.roles=broker,controller
node.id=0
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$folder/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
END
java -cp "$MILLSTREAM_KAFKA_CLASSPATH" kafka.tools.StorageTool format --standalone -t 4L6g3nShT-eMCtK--X86sw \
    -c "$folder/server.properties" >/dev/null 2>&1
java -Xmx512m -cp "$MILLSTREAM_KAFKA_CLASSPATH" kafka.Kafka "$folder/server.properties" >"$folder/log" 2>&1 &
node=$!
trap 'status=$?; kill $node; wait $node 2>/dev/null || true; rm -rf "$folder"; exit $status' EXIT
kafka=127.0.0.1:$port
until millstream topic list -b "$kafka" >/dev/null 2>&1; do
    kill -0 $node
done
