package resources

func (p *Provider) addDeployments() {}
