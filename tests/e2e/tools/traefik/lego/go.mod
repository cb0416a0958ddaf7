// The ACME client without the clients of a hundred DNS providers. build.sh adds its packages from the module itself.
module github.com/go-acme/lego/v5

go 1.26.0

require (
	github.com/BurntSushi/toml v1.6.0
	github.com/cenkalti/backoff/v5 v5.0.3
	github.com/go-jose/go-jose/v4 v4.1.4
	github.com/google/go-cmp v0.7.0
	github.com/hashicorp/go-version v1.9.0
	github.com/joho/godotenv v1.5.1
	github.com/miekg/dns v1.1.72
	github.com/stretchr/testify v1.11.1
	github.com/urfave/cli/v3 v3.10.1
	golang.org/x/crypto v0.54.0
	golang.org/x/net v0.57.0
	software.sslmate.com/src/go-pkcs12 v0.7.3
)
