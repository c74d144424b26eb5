# The number of processors by which runtimes size themselves.
group=$(grep ^0:: /proc/self/cgroup | cut -d: -f3)
echo "quota: $(cat "/sys/fs/cgroup$group/cpu.max" 2>/dev/null || echo none)"
echo "online: $(cat /sys/devices/system/cpu/online)"
echo "nproc: $(nproc)"
echo "node: $(node --print 'os.availableParallelism()')"
cat >Cores.java <<'END'
public class Cores { public static void main(String[] a) {
    System.out.println("java: " + Runtime.getRuntime().availableProcessors()); } }
END
java Cores.java
cat >cores.go <<'END'
package main

import "runtime"

func main() { println("go:", runtime.GOMAXPROCS(0)) }
END
CGO_ENABLED=0 go run cores.go 2>&1
