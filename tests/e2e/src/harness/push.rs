//! Metrics that the product pushes.

use super::Test;

/// What keeps what is pushed to it, as a Pushgateway does.
const PUSHGATEWAY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: push, labels: {app: push}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: gateway
    image: $BUSYBOX
    command:
    - sh
    - -c
    - |
      cat > /tmp/answer <<'END'
      #!/bin/sh
      while read -r line; do
        line=${line%?}
        echo "$line" >> /tmp/pushed
        case $line in [Cc]ontent-[Ll]ength:*) length=${line#*: };; '') break;; esac
      done
      head -c "$length" >> /tmp/pushed
      printf 'HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
      END
      chmod +x /tmp/answer
      exec nc -ll -p 9091 -e /tmp/answer
---
apiVersion: v1
kind: Service
metadata: {name: push}
spec: {selector: {app: push}, ports: [{port: 9091}]}
"#;

impl Test {
    /// Starts it as the Service `push` of the test's namespace.
    pub(crate) async fn pushgateway(&self) {
        self.apply(PUSHGATEWAY).await;
    }

    /// Waits until something of this namespace has been pushed to it, under this label, that holds this text.
    pub(crate) async fn pushed(&self, label: &str, text: &str) {
        let put = format!("PUT /metrics/job/holdfast/namespace/{}/{label}/", self.namespace);
        self.until("metrics are pushed", async || {
            let pushed = self.sh("push", "touch /tmp/pushed; cat /tmp/pushed").await;
            if pushed.contains(&put) && pushed.contains(text) { Ok(()) } else { Err(pushed) }
        })
        .await;
    }
}
