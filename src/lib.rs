//! Causeway: multi-active replication for MySQL and MariaDB over Kafka.
