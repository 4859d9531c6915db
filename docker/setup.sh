#!/bin/sh
# Makes what a cluster of N containers needs in /cluster: the secret, N identities, N config files. Run again, it keeps all.
# Usage: setup.sh N   (inside the image; compose.yaml does it)
set -eu
n=$1
cd /cluster
# All are on one host: of 85 % of its memory, each has its part for VMs.
memory=$(awk -v n="$n" '/^MemTotal:/ { print int($2 / 1024 * 0.85 / n) }' /proc/meminfo)
[ -f secret ] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d " \n" > secret)
members=""
for i in $(seq "$n"); do
  id=$(diapause identity --data-dir "/cluster/peer$i")
  members="$members
[[members]]
name = \"peer$i\"
id = \"$id\"
address = \"/ip4/10.78.0.$((10 + i))/tcp/7400\"
"
done
for i in $(seq "$n"); do
  cat > "peer$i/peer.toml" <<TOML
[cluster]
name = "compose"
secretFile = "/cluster/secret"

[peer]
name = "peer$i"
dataDir = "/cluster/peer$i"
runDir = "/run/diapause"
listen = "/ip4/0.0.0.0/tcp/7400"

# In the clear: the containers' network goes no further than this host.
[api]
listen = "0.0.0.0:7480"
plaintext = true
[hypervisor]
vmMemoryMiB = $memory
$members
TOML
done
echo "a cluster of $n peers is ready in /cluster"
