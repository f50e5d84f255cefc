//! Whether the network is paid for by volume, as NetworkManager tells over the system's bus. Where there is none of the
//! two, nothing is known and nothing is done about it.

use std::time::Duration;

/// NetworkManager on the system's bus, its one object, and the fact that is asked for.
const SERVICE: &str = "org.freedesktop.NetworkManager";
const OBJECT: &str = "/org/freedesktop/NetworkManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const METERED: &str = "Metered";
/// How long the bus may take: whoever is asked is on this machine and just reads a number.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// True where the network is metered, or NetworkManager guesses so.
pub async fn is_metered() -> bool {
    match tokio::time::timeout(ANSWER_TIME, ask(zbus::Connection::system())).await {
        Ok(Ok(number)) => says_metered(number),
        Ok(Err(error)) => {
            tracing::debug!(%error, "nothing tells whether the network is metered");
            false
        }
        Err(_) => false,
    }
}

async fn ask(bus: impl Future<Output = zbus::Result<zbus::Connection>>) -> zbus::Result<u32> {
    let bus = bus.await?;
    let reply = bus.call_method(Some(SERVICE), OBJECT, Some(PROPERTIES), "Get", &(SERVICE, METERED)).await?;
    let body = reply.body();
    let value: zbus::Variant = body.deserialize()?;
    u32::try_from(value)
}

/// Yes is 1 and no is 2; a guess is 3 for yes and 4 for no; 0 is not known.
fn says_metered(number: u32) -> bool {
    matches!(number, 1 | 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::export::futures_core::Stream;

    #[test]
    fn a_network_is_metered_where_that_is_said_or_guessed() {
        assert_eq!([0, 1, 2, 3, 4, 9].map(says_metered), [false, true, false, true, false, false]);
    }

    async fn bus_at(address: &str) -> zbus::Result<zbus::Connection> {
        zbus::connection::Builder::address(address).build().await
    }

    #[tokio::test]
    async fn without_a_bus_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(bus_at(&format!("unix:path={}", dir.path().join("bus").display()))).await.is_err());
    }

    #[tokio::test]
    async fn what_answers_for_the_network_manager_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", dir.path().join("bus").display());
        let mut daemon = std::process::Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--address", &address]);
        let Ok(mut daemon) = daemon.spawn() else {
            eprintln!("skipped: there is no dbus-daemon");
            return;
        };
        let bound = tokio::time::Instant::now() + Duration::from_secs(20);
        let service = loop {
            match bus_at(&address).await {
                Ok(bus) => break bus,
                Err(error) => assert!(tokio::time::Instant::now() < bound, "{error}"),
            }
        };
        let mut asked = zbus::MessageStream::from(&service);
        service.request_name(SERVICE).await.unwrap();
        tokio::spawn(async move {
            loop {
                let next = std::future::poll_fn(|cx| Stream::poll_next(std::pin::Pin::new(&mut asked), cx)).await;
                let Some(Ok(message)) = next else { return };
                if message.header().member().is_some_and(|member| member.as_str() == "Get") {
                    service.reply(&message.header(), &zbus::Variant::from(3u32)).await.unwrap();
                }
            }
        });
        assert_eq!(ask(bus_at(&address)).await.unwrap(), 3);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}
